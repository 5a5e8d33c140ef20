"""What a spiking network is, exactly."""
