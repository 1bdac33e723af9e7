"""The engine: policy -> plan -> program -> runner, and the processes around it."""
