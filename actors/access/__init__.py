"""Who may say what over the links: the rules, the table of clients, the place of the keys, the daemon's book."""
