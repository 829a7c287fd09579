-- Labels that a VM must have to be opened by the token, as a JSON object; empty means all.
ALTER TABLE tokens ADD COLUMN labels TEXT NOT NULL DEFAULT '{}';
