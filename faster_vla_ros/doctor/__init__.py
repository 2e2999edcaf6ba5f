"""`faster-vla doctor`: what is wrong with a running graph, said before anything moves."""
