"""Work that is shared out, resumed, and never left half written."""
