"""What people look at: lines, tables and figures of a bank. The only place, with the doors, that prints or draws."""
