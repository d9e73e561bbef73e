//! What the tests of Phalanx share: laws for backends, nodes, a client.
