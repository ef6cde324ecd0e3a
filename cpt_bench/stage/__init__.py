"""What a trainer is given and what comes back: one stage of the sequence."""
