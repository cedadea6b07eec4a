"""Drives the public supervision API with real pykka threads through OTP scenarios (see ``__main__``)."""
