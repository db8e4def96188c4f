-- When the peering ended last, milliseconds since 1970: a removal in the file of revocations that is no later is known here.
ALTER TABLE peer ADD COLUMN removed INTEGER;
