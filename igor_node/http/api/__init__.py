"""The handlers, one file a subject; each file ends in its rows of the table of routes. Shapes of answers: CONTRACT, "HTTP"."""
