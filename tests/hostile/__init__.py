"""What strangers and broken clients send."""
