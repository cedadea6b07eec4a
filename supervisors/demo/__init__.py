"""The programs the demo supervises: stand-ins for the platform's services and for the peers of its bridge."""
