"""Alembic's way in: it runs the steps on the connection that `migrate` holds."""

from alembic import context

from admin.tables import metadata

context.configure(connection=context.config.attributes["connection"], target_metadata=metadata)
with context.begin_transaction():
    context.run_migrations()
