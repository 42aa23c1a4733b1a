"""What ``wardkey demo`` does: clinics with synthetic patients, attacks on them, what protection costs."""
