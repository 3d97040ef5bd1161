"""What people do with a model: each application is a Python call, a command, an API route and a room of the page."""
