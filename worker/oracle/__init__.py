"""Everything about asking OpenAI, without SQL."""
