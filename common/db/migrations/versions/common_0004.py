"""An index by which reconcilers find what runs, is parked, or was turned back a moment ago, among all flows that ever were."""

from alembic import op

revision = "common_0004"
down_revision = "common_0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_index(op.f("ix_flows_state_updated_at"), "flows", ["state", "updated_at"], unique=False)


def downgrade() -> None:
    op.drop_index(op.f("ix_flows_state_updated_at"), table_name="flows")
