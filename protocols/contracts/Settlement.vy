# pragma version 0.4.3
# pragma evm-version prague
# pragma optimize gas
"""
@title Settlement
@license Apache-2.0
@notice Stores one Merkle root an epoch if more than two thirds of a committee, by weight, signed
        it with BLS12-381; verifies that a verdict is under a root. The contract has no owner: the
        deployer names the first committee, and each committee signs for the next. Rules:
        specs/contract.md.

Points and field elements are encoded as in EIP-2537: each coordinate 48 bytes, padded to 64. The
precompiles refuse coordinates not below the modulus, points off the curve and, in the pairing,
points outside the subgroup. They accept infinity, which this contract refuses. G1ADD does not check
the subgroup: only keys that a pairing has checked are ever added.
"""

struct Member:
    key: bytes32[4]  # a point of G1
    weight: uint64

struct Statement:
    chain_id: uint256
    contract: address
    epoch: uint64
    root: bytes32
    size: uint64
    policy_id: bytes32
    committee_id: bytes32
    committee_sequence: uint64
    previous_root: bytes32

struct Rotation:
    chain_id: uint256
    contract: address
    committee_id: bytes32
    committee_sequence: uint64
    incoming: bytes32

event Registered:
    registrant: indexed(address)
    members: uint256

event Discarded:
    registrant: indexed(address)
    members: uint256

event Activated:
    committee_id: indexed(bytes32)
    registrant: indexed(address)
    committee_sequence: uint64
    epoch: uint64
    members: uint256
    weight: uint256

event Settled:
    epoch: indexed(uint64)
    root: indexed(bytes32)
    size: uint64
    policy_id: bytes32
    weight: uint256

MAX_MEMBERS: constant(uint256) = 256
CHUNK: constant(uint256) = 32  # Members that one call registers, and one data contract holds.
MAX_CHUNKS: constant(uint256) = 8
MEMBER_SIZE: constant(uint256) = 160
MAX_LEAF: constant(uint256) = 2048
MAX_PROOF: constant(uint256) = 64

MODEXP: constant(address) = 0x0000000000000000000000000000000000000005
G1ADD: constant(address) = 0x000000000000000000000000000000000000000b
G2ADD: constant(address) = 0x000000000000000000000000000000000000000d
PAIRING: constant(address) = 0x000000000000000000000000000000000000000F
MAP_FP2_TO_G2: constant(address) = 0x0000000000000000000000000000000000000011

SHA256_ABC: constant(bytes32) = 0xba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad

# The field modulus p, in two words.
P_HIGH: constant(bytes32) = 0x000000000000000000000000000000001a0111ea397fe69a4b1ba7b6434bacd7
P_LOW: constant(bytes32) = 0x64774b84f38512bf6730d2a0f6b0f6241eabfffeb153ffffb9feffffffffaaab

GENERATOR: constant(bytes32[4]) = [
    0x0000000000000000000000000000000017f1d3a73197d7942695638c4fa9ac0f,
    0xc3688c4f9774b905a14e3a3f171bac586c55e83ff97a1aeffb3af00adb22c6bb,
    0x0000000000000000000000000000000008b3f481e3aaa0f1a09e30ed741d8ae4,
    0xfcf5e095d5d00af600db18cb2c04b3edd03cc744a2888ae40caa232946c5e7e1,
]
MINUS_GENERATOR: constant(bytes32[4]) = [
    0x0000000000000000000000000000000017f1d3a73197d7942695638c4fa9ac0f,
    0xc3688c4f9774b905a14e3a3f171bac586c55e83ff97a1aeffb3af00adb22c6bb,
    0x00000000000000000000000000000000114d1d6855d545a8aa7d76c8cf2e21f2,
    0x67816aef1db507c96655b9d5caac42364e6f38ba0ecb751bad54dcd6b939c2ca,
]

# The ciphersuite's tags (draft-irtf-cfrg-bls-signature), each followed by its length (RFC 9380).
DST: constant(Bytes[44]) = b"BLS_SIG_BLS12381G2_XMD:SHA-256_SSWU_RO_POP_+"
POSSESSION_DST: constant(Bytes[44]) = b"BLS_POP_BLS12381G2_XMD:SHA-256_SSWU_RO_POP_+"

# Domains of signatures, each preceded by its length: no kind of statement passes for another.
STATEMENT: constant(Bytes[29]) = b"\x1cverifiable epoch statement 1"
ROTATION: constant(Bytes[32]) = b"\x1fverifiable committee rotation 1"
REGISTRATION: constant(Bytes[26]) = b"\x19verifiable registration 1"

# Init code that returns the bytes after it. The deployed code starts with STOP and cannot run.
DEPLOY_REST: constant(Bytes[12]) = b"\x60\x0b\x59\x81\x38\x03\x80\x92\x59\x39\xf3\x00"

GENESIS: public(immutable(bytes32))

# The committee in office. `minus_total` is minus the sum of its keys: adding the keys of the absent
# members gives minus the key of the signers, which the pairing takes.
committee_id: public(bytes32)
committee_sequence: public(uint64)
members: public(uint256)
weight: public(uint256)
minus_total: bytes32[4]
chunks: DynArray[address, MAX_CHUNKS]

# Members whose proofs were verified, by registrant, until they become a committee.
staged_members: public(HashMap[address, uint256])
staged_chunks: HashMap[address, DynArray[address, MAX_CHUNKS]]

epochs: public(uint64)  # Number of settled epochs, and of the next.
roots: public(HashMap[uint64, bytes32])
sizes: public(HashMap[uint64, uint64])


@deploy
def __init__(genesis: bytes32):
    """
    @param genesis The id of the first committee, which any account may register and activate.
    """
    assert genesis != empty(bytes32), "no-genesis"
    # The compiler does not check the length of the output of this precompile.
    abc: Bytes[3] = b"abc"
    assert sha256(abc) == SHA256_ABC, "no-precompile"
    GENESIS = genesis


# ------------------------------------------------------------------------------------- committees


@external
def register(members: DynArray[Member, CHUNK], possessions: DynArray[bytes32[8], CHUNK]):
    """
    @notice Stage up to 32 members of a committee. Each proof of possession binds this chain, this
            contract and the caller, so no account can stage a key in another's name.
    @param members In the order of the committee. All calls but the last bring exactly 32.
    @param possessions One proof, a point of G2, for each member.
    """
    staged: uint256 = self.staged_members[msg.sender]
    assert len(members) > 0 and len(members) == len(possessions), "bad-lengths"
    assert staged % CHUNK == 0, "already-complete"
    assert staged + len(members) <= MAX_MEMBERS, "too-many-members"
    for i: uint256 in range(len(members), bound=CHUNK):
        key: bytes32[4] = members[i].key
        assert members[i].weight > 0, "no-weight"
        assert not self._is_infinity(key), "infinite-key"
        message: Bytes[250] = concat(REGISTRATION, abi_encode(key, chain.id, self, msg.sender))
        proven: bool = self._verifies(
            key, message, POSSESSION_DST, possessions[i], MINUS_GENERATOR
        )
        assert proven, "bad-possession"
    data: Bytes[MEMBER_SIZE * CHUNK + 32] = abi_encode(members, ensure_tuple=False)
    # As code, members cost a third of what slots cost to store, and a tenth to read.
    self.staged_chunks[msg.sender].append(raw_create(concat(DEPLOY_REST, data)))
    self.staged_members[msg.sender] = staged + len(members)
    log Registered(registrant=msg.sender, members=staged + len(members))


@external
def discard():
    """
    @notice Discard the members that the caller has staged.
    """
    log Discarded(registrant=msg.sender, members=self.staged_members[msg.sender])
    self._unstage()


@external
def activate():
    """
    @notice Put the committee that the caller has staged in office, if it is the one named at
            deployment.
    """
    assert self.members == 0, "already-active"
    assert self._install(0) == GENESIS, "other-committee"


@external
def rotate(rotation: Rotation, signers: Bytes[32], signature: bytes32[8]):
    """
    @notice Replace the committee by the one that the caller has staged, if the committee in office
            signed for it.
    @param rotation The statement that the outgoing committee signed, whole.
    @param signers As in `settle`.
    @param signature As in `settle`.
    """
    self._require_here(rotation.chain_id, rotation.contract)
    self._require_term(rotation.committee_id, rotation.committee_sequence)
    minus_key: bytes32[4] = empty(bytes32[4])
    weight: uint256 = 0
    # Read keys and quorum of the outgoing committee before it is replaced.
    minus_key, weight = self._signers(signers)
    assert self._install(rotation.committee_sequence + 1) == rotation.incoming, "other-incoming"
    self._require_signed(minus_key, concat(ROTATION, abi_encode(rotation)), signature)


@internal
def _unstage():
    self.staged_chunks[msg.sender] = []
    self.staged_members[msg.sender] = 0


@internal
def _install(sequence: uint64) -> bytes32:
    """
    Put the caller's staged members in office; return the id of their committee, which the caller of
    this function must check.
    """
    count: uint256 = self.staged_members[msg.sender]
    assert count > 0, "no-members"
    chunks: DynArray[address, MAX_CHUNKS] = self.staged_chunks[msg.sender]
    members: DynArray[Member, MAX_MEMBERS] = []
    weight: uint256 = 0
    total: bytes32[4] = empty(bytes32[4])
    before: bytes32[4] = empty(bytes32[4])
    for i: uint256 in range(count, bound=MAX_MEMBERS):
        member: Member = self._member(chunks[i // CHUNK], i % CHUNK)
        # Strictly ascending keys are distinct keys.
        assert self._less(before, member.key), "unordered-members"
        before = member.key
        total = self._add(total, member.key)
        weight += convert(member.weight, uint256)
        members.append(member)
    assert not self._is_infinity(total), "infinite-key"
    identifier: bytes32 = sha256(abi_encode(members, ensure_tuple=False))
    self.committee_id = identifier
    self.committee_sequence = sequence
    self.members = count
    self.weight = weight
    self.minus_total = self._negate(total)
    self.chunks = chunks
    self._unstage()
    log Activated(
        committee_id=identifier,
        registrant=msg.sender,
        committee_sequence=sequence,
        epoch=self.epochs,
        members=count,
        weight=weight,
    )
    return identifier


@external
@view
def member(index: uint256) -> Member:
    """
    @notice Key and weight of a member of the committee in office.
    """
    assert index < self.members, "no-such-member"
    return self._member(self.chunks[index // CHUNK], index % CHUNK)


@external
@view
def staged_member(registrant: address, index: uint256) -> Member:
    """
    @notice Key and weight of a member that an account has staged, whose proof was verified.
    """
    assert index < self.staged_members[registrant], "no-such-member"
    return self._member(self.staged_chunks[registrant][index // CHUNK], index % CHUNK)


@internal
@view
def _member(chunk: address, index: uint256) -> Member:
    # A byte of STOP and a word with the number of members come first.
    return abi_decode(slice(chunk.code, 33 + MEMBER_SIZE * index, MEMBER_SIZE), Member)


# ----------------------------------------------------------------------------------------- epochs


@external
def settle(statement: Statement, signers: Bytes[32], signature: bytes32[8]):
    """
    @notice Store the root of the next epoch.
    @param statement The statement that the committee signed, whole.
    @param signers A bit for each member: member i is bit i % 8 of byte i // 8.
    @param signature The aggregate of the signers' signatures, a point of G2.
    """
    epoch: uint64 = self.epochs
    self._require_here(statement.chain_id, statement.contract)
    assert statement.epoch >= epoch, "epoch-settled"
    assert statement.epoch == epoch, "epoch-ahead"
    self._require_term(statement.committee_id, statement.committee_sequence)
    previous: bytes32 = empty(bytes32)
    if epoch > 0:
        previous = self.roots[epoch - 1]
    assert statement.previous_root == previous, "other-previous-root"
    assert statement.size > 0, "no-verdicts"
    minus_key: bytes32[4] = empty(bytes32[4])
    weight: uint256 = 0
    minus_key, weight = self._signers(signers)
    self._require_signed(minus_key, concat(STATEMENT, abi_encode(statement)), signature)
    self.epochs = epoch + 1
    self.roots[epoch] = statement.root
    self.sizes[epoch] = statement.size
    log Settled(
        epoch=epoch,
        root=statement.root,
        size=statement.size,
        policy_id=statement.policy_id,
        weight=weight,
    )


@external
@view
def verify_inclusion(
    epoch: uint64, index: uint64, leaf: Bytes[MAX_LEAF], proof: DynArray[bytes32, MAX_PROOF]
):
    """
    @notice Revert unless `leaf` is the verdict at `index` of a settled epoch (RFC 9162, 2.1.3.2).
    @param leaf The bytes of the verdict, hashed here, so no inner node passes for a verdict.
    @param proof The siblings, from the leaf upwards.
    """
    size: uint64 = self.sizes[epoch]
    assert size > 0, "epoch-ahead"
    assert index < size, "no-such-verdict"
    fn: uint256 = convert(index, uint256)
    sn: uint256 = convert(size - 1, uint256)
    digest: bytes32 = sha256(concat(b"\x00", leaf))
    for sibling: bytes32 in proof:
        assert sn != 0, "proof-length"
        if fn & 1 == 1 or fn == sn:
            digest = sha256(concat(b"\x01", sibling, digest))
            # The last node of an odd level is carried up until it has a left sibling.
            for _: uint256 in range(64):
                if fn & 1 == 1:
                    break
                fn >>= 1
                sn >>= 1
        else:
            digest = sha256(concat(b"\x01", digest, sibling))
        fn >>= 1
        sn >>= 1
    assert sn == 0, "proof-length"
    assert digest == self.roots[epoch], "root-mismatch"


# --------------------------------------------------------------------------------------- signatures


@internal
@view
def _signers(signers: Bytes[32]) -> (bytes32[4], uint256):
    """
    Minus the sum of the signers' keys, and their weight, which must be more than two thirds.
    """
    count: uint256 = self.members
    assert len(signers) == (count + 7) // 8, "bitmap-length"
    # Bytes fill the word from its top, bits fill a byte from its bottom: member i is bit
    # 248 - (i & 248) + (i & 7). The mask has the whole bytes first, then the remaining bits.
    present: uint256 = convert(convert(signers, bytes32), uint256)
    bits: uint256 = ~(max_value(uint256) >> (count & 504))
    bits |= ((1 << (count & 7)) - 1) << (248 - (count & 248))
    absent: uint256 = bits ^ present
    assert absent & ~bits == 0, "bitmap-excess"
    minus_key: bytes32[4] = self.minus_total
    total: uint256 = self.weight
    weight: uint256 = total
    for c: uint256 in range(MAX_CHUNKS):
        lane: uint256 = (absent >> (224 - 32 * c)) & (2**32 - 1)
        if lane == 0:
            continue
        chunk: address = self.chunks[c]
        for i: uint256 in range(CHUNK):
            if (lane >> (24 - (i & 24) + (i & 7))) & 1 == 1:
                member: Member = self._member(chunk, i)
                minus_key = self._add(minus_key, member.key)
                weight -= convert(member.weight, uint256)
    assert 3 * weight > 2 * total, "no-quorum"
    return minus_key, weight


@internal
@view
def _require_here(chain_id: uint256, contract: address):
    assert chain_id == chain.id, "other-chain"
    assert contract == self, "other-contract"


@internal
@view
def _require_term(committee_id: bytes32, sequence: uint64):
    assert self.members > 0, "no-committee"
    assert committee_id == self.committee_id, "other-committee"
    assert sequence == self.committee_sequence, "other-sequence"


@internal
@view
def _require_signed(minus_key: bytes32[4], message: Bytes[320], signature: bytes32[8]):
    assert not self._is_infinity(minus_key), "infinite-key"
    assert self._verifies(minus_key, message, DST, signature, GENERATOR), "bad-signature"


@internal
@view
def _verifies(
    key: bytes32[4],
    message: Bytes[320],
    dst: Bytes[44],
    signature: bytes32[8],
    generator: bytes32[4],
) -> bool:
    """
    Whether e(key, H(message)) e(generator, signature) = 1. Reverts for an infinite signature; the
    precompile reverts for anything else that is not a point of its group.
    """
    some: bytes32 = empty(bytes32)
    for word: bytes32 in signature:
        some |= word
    assert some != empty(bytes32), "infinite-signature"
    hashed: bytes32[8] = self._hash_to_g2(message, dst)
    result: Bytes[32] = raw_call(
        PAIRING, abi_encode(key, hashed, generator, signature), max_outsize=32, is_static_call=True
    )
    assert len(result) == 32, "no-precompile"
    return convert(result, uint256) == 1


@internal
@view
def _hash_to_g2(message: Bytes[320], dst: Bytes[44]) -> bytes32[8]:
    """
    RFC 9380, BLS12381G2_XMD:SHA-256_SSWU_RO_. MAP_FP2_TO_G2 clears the cofactor of each summand.
    """
    # expand_message_xmd: 64 zeros, the message, the length 256, and a zero.
    b0: bytes32 = sha256(concat(empty(bytes32), empty(bytes32), message, b"\x01\x00\x00", dst))
    b: bytes32[8] = empty(bytes32[8])
    bi: bytes32 = empty(bytes32)
    for i: uint256 in range(8):
        bi = sha256(concat(b0 ^ bi, convert(convert(i + 1, uint8), bytes1), dst))
        b[i] = bi
    first: bytes32[8] = self._map(b[0], b[1], b[2], b[3])
    second: bytes32[8] = self._map(b[4], b[5], b[6], b[7])
    result: Bytes[256] = raw_call(
        G2ADD, abi_encode(first, second), max_outsize=256, is_static_call=True
    )
    assert len(result) == 256, "no-precompile"
    return abi_decode(result, bytes32[8])


@internal
@view
def _map(a: bytes32, b: bytes32, c: bytes32, d: bytes32) -> bytes32[8]:
    result: Bytes[256] = raw_call(
        MAP_FP2_TO_G2,
        concat(self._reduce(a, b), self._reduce(c, d)),
        max_outsize=256,
        is_static_call=True,
    )
    assert len(result) == 256, "no-precompile"
    return abi_decode(result, bytes32[8])


@internal
@view
def _reduce(high: bytes32, low: bytes32) -> Bytes[64]:
    """
    512 bits modulo p: the modular exponentiation with exponent 1.
    """
    lengths: uint256[3] = [64, 1, 64]
    one: Bytes[1] = b"\x01"
    result: Bytes[64] = raw_call(
        MODEXP,
        concat(abi_encode(lengths, high, low), one, abi_encode(P_HIGH, P_LOW)),
        max_outsize=64,
        is_static_call=True,
    )
    assert len(result) == 64, "no-precompile"
    return result


@internal
@view
def _add(a: bytes32[4], b: bytes32[4]) -> bytes32[4]:
    result: Bytes[128] = raw_call(G1ADD, abi_encode(a, b), max_outsize=128, is_static_call=True)
    assert len(result) == 128, "no-precompile"
    return abi_decode(result, bytes32[4])


@internal
@pure
def _negate(point: bytes32[4]) -> bytes32[4]:
    """
    (x, p - y), of a point that is not infinity. No point of order r has y = 0.
    """
    low: uint256 = convert(P_LOW, uint256)
    y: uint256 = convert(point[3], uint256)
    borrow: uint256 = 1 if y > low else 0
    high: uint256 = convert(P_HIGH, uint256) - convert(point[2], uint256) - borrow
    return [point[0], point[1], convert(high, bytes32), convert(unsafe_sub(low, y), bytes32)]


@internal
@pure
def _less(a: bytes32[4], b: bytes32[4]) -> bool:
    for i: uint256 in range(4):
        if a[i] != b[i]:
            return convert(a[i], uint256) < convert(b[i], uint256)
    return False


@internal
@pure
def _is_infinity(point: bytes32[4]) -> bool:
    return point[0] | point[1] | point[2] | point[3] == empty(bytes32)
