"""The steps of pipelines, one a file. They know the model and the ports, nothing else."""
