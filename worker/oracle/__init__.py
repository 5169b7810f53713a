"""What the oracle is asked, and what that may cost: prompts, text windows, redaction, prices. Knows no network."""
