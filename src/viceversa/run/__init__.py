"""What a training run is made of: its settings, its schedule, its session in one process, what it records."""
