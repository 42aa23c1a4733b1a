"""The extension, and plpython3u with it. Its functions come with its own scripts, never from here."""

from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    op.execute("create extension if not exists wardkey cascade")
    op.execute("alter extension wardkey update")


def downgrade() -> None:
    op.execute("""
        do $$
        begin
          if exists (select from ward.tenants) then
            perform ward_internal.fail('ward_not_empty', 'there are tenants, whose keys would go too',
              'drop them first: wardkey tenant drop SLUG');
          end if;
        end
        $$
    """)
    op.execute("drop extension wardkey")
