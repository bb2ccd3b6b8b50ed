"""Two processes of one program on one machine, as accelerate starts them."""

# With --cpu accelerate starts a single process; "--multi_gpu" is its word for several, and the program's own --cpu or
# --device cpu keeps them off a GPU. Put a Python in front, and a script or "-m" and a module behind.
TWO_PROCESSES = (
    "-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2", "--num_machines", "1",
    "--mixed_precision", "no", "--dynamo_backend", "no", "--main_process_port", "0",
)  # fmt: skip
