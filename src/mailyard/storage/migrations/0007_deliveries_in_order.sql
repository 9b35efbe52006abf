-- A campaign's delivery ids carry the number of the chunk behind their time, so that the rows of a
-- step stand together in each index that ends with the id: of a million recipients every row would
-- else touch another page of three indexes. Campaigns from before keep the ids that they have.

ALTER TABLE campaign ADD COLUMN ids_by_chunk boolean NOT NULL DEFAULT false;
ALTER TABLE campaign ALTER COLUMN ids_by_chunk SET DEFAULT true;
