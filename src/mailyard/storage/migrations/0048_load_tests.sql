-- Load tests and what came of them: how much this installation was seen to bear, and when.
CREATE TABLE load_test (
    id          uuid PRIMARY KEY,                      -- its time is the test's end
    origin      text NOT NULL CHECK (origin IN ('command', 'page')),
    version     text NOT NULL,                         -- of the program that was tested
    recipients  integer NOT NULL,
    per_second  integer NOT NULL,
    clean       boolean NOT NULL,                      -- nothing lost, twice or wrong
    verdict     jsonb NOT NULL,
    processes   jsonb NOT NULL                         -- how many of each role lived
);
