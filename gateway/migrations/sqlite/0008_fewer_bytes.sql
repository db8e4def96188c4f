-- By which policies a copy was released, its signed record says.
ALTER TABLE delivery DROP COLUMN policy_hash;
