"""What gunicorn serves in its test."""


def app(environ, start_response):
    """Answers any request."""
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", "2")])
    return [b"ok"]
