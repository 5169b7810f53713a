"""What a job's labels are worth."""
