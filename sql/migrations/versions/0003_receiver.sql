-- What the receiver reads: the coins of an exchange.

CREATE INDEX coins_exchanges ON coins USING gin (exchanges);
