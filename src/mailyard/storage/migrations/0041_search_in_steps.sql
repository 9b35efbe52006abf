-- Keys of a line beside its words. When it came: its millisecond cut to 2^12, 2^15, … 2^42, the level
-- in the upper bits (mailbox/search/fact.py makes the same). How large it is: between which powers of 2.
CREATE FUNCTION search_facts(message_id uuid, size_bytes integer) RETURNS bigint[]
LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE AS $$
DECLARE
    id text := message_id::text;
    ms bigint := ('x' || left(id, 8) || substr(id, 10, 4))::bit(48)::bigint;
BEGIN
    RETURN ARRAY[
        ms >> 12,
        (1::bigint << 40) | (ms >> 15),
        (2::bigint << 40) | (ms >> 18),
        (3::bigint << 40) | (ms >> 21),
        (4::bigint << 40) | (ms >> 24),
        (5::bigint << 40) | (ms >> 27),
        (6::bigint << 40) | (ms >> 30),
        (7::bigint << 40) | (ms >> 33),
        (8::bigint << 40) | (ms >> 36),
        (9::bigint << 40) | (ms >> 39),
        (10::bigint << 40) | (ms >> 42),
        (32::bigint << 40) | width_bucket(size_bytes, ARRAY[
            512, 1024, 2048, 4096, 8192, 16384, 32768, 65536, 131072, 262144, 524288, 1048576,
            2097152, 4194304, 8388608, 16777216, 33554432, 67108864
        ])
    ];
END
$$;
