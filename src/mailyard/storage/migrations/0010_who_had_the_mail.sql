-- Every attempt of a delivery's story names the transport that had it.

ALTER TABLE delivery_event ADD COLUMN transport text NOT NULL DEFAULT '';
