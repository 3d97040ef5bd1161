"""Customer service: rules, matching with a confidence, conversations, tickets, hand-over to people."""
