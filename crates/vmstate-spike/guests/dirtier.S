# Writes 64 bytes in each of so many pages per tick, round and round a ring of memory, asleep in wfi between ticks. What it
# writes is a number that grows by one with each round and differs from page to page; before, it checks that what it wrote a
# round ago is still there. The counter is the number of pages written, the checksum the sum of what was written.
#
# At the start hart 0 fills memory with what is not zero: 64 bytes in each page, different ones.

        .include "guest.inc"

        .equ    STEP, 0x9e3779b97f4a7c15

        control 2, 0x80400000, 0x100000, 10000, 16, 0, 0, 0
        begin
        li      s6, STEP
        li      s7, 4096

        bnez    s0, 2f
        ld      a0, P_FILL(s1)
        ld      a1, P_FILL_BYTES(s1)
        add     a1, a1, a0
1:      bgeu    a0, a1, 2f
        mul     a2, a0, s6
        ori     a2, a2, 1
        jal     ra, stamp
        add     a0, a0, s7
        j       1b
2:
        ld      s2, P_START(s1)
        ld      s3, P_BYTES(s1)
        mul     t0, s3, s0
        add     s2, s2, t0              # the ring
        add     s3, s3, s2
        mv      a0, s2
        li      a2, 0                   # round 0
1:      mul     a2, a0, s6
        jal     ra, stamp
        add     a0, a0, s7
        bltu    a0, s3, 1b
        li      t0, 2
        sd      t0, STATE(s11)
        li      t0, 0x80                # the timer wakes, and does not interrupt
        csrw    mie, t0
        mv      s4, s2                  # position
        li      s5, 1                   # round
        ld      t0, 0(s9)
        add     t0, t0, s8
        sd      t0, 0(s10)

sleep:  wfi
        ld      t0, 0(s10)
        ld      t1, 0(s9)
        bltu    t1, t0, sleep
        check_time
        ld      t1, 0(s10)
        add     t1, t1, s8
        bgeu    t1, t0, 1f
        mv      t1, t0                  # late: do not catch up
1:      sd      t1, 0(s10)
        ld      a4, P_PAGES(s1)
        beqz    a4, 4f
2:      mv      a0, s4
        mul     a2, a0, s6
        add     a2, a2, s5
        addi    a2, a2, -1              # what was written a round ago
        ld      a3, 0(a0)
        bne     a3, a2, wrong
        ld      a3, 56(a0)
        bne     a3, a2, wrong
        addi    a2, a2, 1
        jal     ra, stamp
        ld      t0, CHECKSUM(s11)
        add     t0, t0, a2
        sd      t0, CHECKSUM(s11)
        ld      t0, COUNTER(s11)
        addi    t0, t0, 1
        sd      t0, COUNTER(s11)
        add     s4, s4, s7
        bltu    s4, s3, 3f
        mv      s4, s2
        addi    s5, s5, 1
        sd      s5, ROUNDS(s11)
3:      sd      s4, POSITION(s11)
        addi    a4, a4, -1
        bnez    a4, 2b
4:      ld      t0, TICKS(s11)
        addi    t0, t0, 1
        sd      t0, TICKS(s11)
        j       sleep

# Writes a2 to the first 64 bytes of the page at a0.
stamp:  sd      a2, 0(a0)
        sd      a2, 8(a0)
        sd      a2, 16(a0)
        sd      a2, 24(a0)
        sd      a2, 32(a0)
        sd      a2, 40(a0)
        sd      a2, 48(a0)
        sd      a2, 56(a0)
        ret

wrong:  mv      a1, a0
        li      a0, MEMORY_WRONG
        j       fail
        failure
