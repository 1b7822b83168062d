"""A web page that shows the phones of audio files and of a microphone.

`app.create_app` makes the application, `serving.serve` runs it. Nothing is stored: a request's file is in a temporary
folder until the request is answered.
"""
