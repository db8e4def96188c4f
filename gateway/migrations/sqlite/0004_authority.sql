-- When a certificate was issued, in Unix milliseconds; the SHA-256 of the root that issued it, and of the
-- other root that was told with it where the CA was being changed: who knows which root follows from these.
ALTER TABLE certificate ADD COLUMN issued INTEGER NOT NULL DEFAULT 0;
-- None for those issued before this was written down; the next start says which it was.
ALTER TABLE certificate ADD COLUMN ca BLOB;
ALTER TABLE certificate ADD COLUMN other BLOB;
