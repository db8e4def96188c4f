-- liaison.exchange.v1.Services: what an agency offers, encoded; empty where nothing is said.
ALTER TABLE agency ADD COLUMN services BLOB NOT NULL DEFAULT x'';
