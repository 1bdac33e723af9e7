"""The kernel, thin: one function a system call, OSError with the call and path, no policy."""
