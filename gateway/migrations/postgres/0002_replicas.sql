-- What the gateways of the domain have in common, one row: whoever changes anything locks it first, so that changes have
-- one order.
ALTER TABLE writer RENAME TO shared;
ALTER TABLE shared
    -- The numbers of the next message and the next delivery: none is given out twice.
    ADD COLUMN next_message  BIGINT NOT NULL DEFAULT 1,
    ADD COLUMN next_delivery BIGINT NOT NULL DEFAULT 1,
    -- How often agencies, policies, peers or what is revoked changed: a gateway that remembers fewer changes reads them anew.
    ADD COLUMN state         BIGINT NOT NULL DEFAULT 0,
    -- The SHA-256 of the roots of the domain's CAs, the one that issues first.
    ADD COLUMN roots         BYTEA,
    -- The domain's newest bundle, an encoded SignedBundle.
    ADD COLUMN bundle        BYTEA;
-- Its row changes with every transaction: there is room for it beside itself.
ALTER TABLE shared SET (fillfactor = 10);

-- What waits in each queue: the account that its bound is checked by. Made anew by a gateway that starts alone.
CREATE TABLE load (
    queue      TEXT COLLATE "C" PRIMARY KEY,
    deliveries BIGINT NOT NULL,
    bytes      BIGINT NOT NULL
) WITH (fillfactor = 50);

-- When the peering ended last, or began anew after that, milliseconds since 1970: a removal in a file of revocations that
-- is no later is known here.
ALTER TABLE peer ADD COLUMN removed BIGINT;
UPDATE peer SET removed = CAST(EXTRACT(EPOCH FROM now()) * 1000 AS BIGINT) WHERE state = 3;
