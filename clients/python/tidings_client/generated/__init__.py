"""What is made from the wire types of the server. Nothing here is written by hand."""
