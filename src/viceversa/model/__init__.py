"""The method: the paper's networks, losses, history and step, and the file a model is kept in."""
