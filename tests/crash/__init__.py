"""Promise 1, proven by simulating loss: a disk model, a recorder of system calls, and the tests that use them."""
