"""The SQL side: tables, every write of a job's life (`ledger`), every read (`queries`)."""
