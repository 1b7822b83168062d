"""A web page for a model: audio files and a microphone in, phones to look at, to hear and to take home.

`app.create_app` makes the application, `serving.serve` runs it. Nothing is kept: a request's file lies in a temporary
folder until it is answered.
"""
