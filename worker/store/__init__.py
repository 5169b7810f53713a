"""The SQL side: tables, every write of a job's life (`ledger`), every read (`queries`).

Statements that every batch or request needs are built once, as constants: SQLAlchemy takes longer to build one than a
database to run it.
"""
