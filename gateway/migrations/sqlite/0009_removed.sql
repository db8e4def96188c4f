-- When the peering ended last, or began anew after that, milliseconds since 1970: a removal in the file of revocations
-- that is no later is known here.
ALTER TABLE peer ADD COLUMN removed INTEGER;
UPDATE peer SET removed = unixepoch() * 1000 WHERE state = 3;
