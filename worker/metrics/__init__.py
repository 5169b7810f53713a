"""What Prometheus is told: of the ledger, whatever died meanwhile, and of the workers of one host."""
