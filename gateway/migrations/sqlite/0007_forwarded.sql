-- What a peer accepted stays a delivery until its end is told, so that it can be offered again to a peer that lost it.

-- Whether the peer has accepted it and its end is outstanding. Then it counts in the queue of its recipient, an agency
-- of the peer, instead of the lane.
ALTER TABLE delivery ADD COLUMN forwarded INTEGER NOT NULL DEFAULT 0;
-- The number of the log of evidence that the peer signed when it accepted the copy; null where it was not heard to, and
-- where the copy is not to be offered again.
ALTER TABLE delivery ADD COLUMN log INTEGER;
-- How often it was offered again because the peer had opened another log.
ALTER TABLE delivery ADD COLUMN again INTEGER NOT NULL DEFAULT 0;
-- How often the peer has told that less of it was released.
ALTER TABLE delivery ADD COLUMN narrowed INTEGER NOT NULL DEFAULT 0;

-- Of what peers accepted before, the content is gone.
INSERT INTO delivery (queue, agency, expires, bytes, message, offered, handed_over, forwarded, narrowed)
SELECT recipient, recipient, expires, 0, message, 1, 1, 1, narrowed FROM forwarded;
DROP TABLE forwarded;
