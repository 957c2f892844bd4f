"""Code that every command shares: exit codes and option types."""
