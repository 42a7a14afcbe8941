"""One module per neighbour of the lifecycle; none of them imports another."""
