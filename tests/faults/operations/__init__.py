"""What people who run it do to it, and what happens to its servers: restarts, fail-overs, backups, full disks, wrong
clocks, passwords, TLS, two versions at once."""
