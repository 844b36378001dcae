# Each hart counts in memory of its own, again and again: word i is i * STEP + 1 + 2 + … + n after pass n. It checks each
# word before it changes it, so a page that was lost, or came twice, shows. After a pass it writes the checksum of what it
# wrote, then n; takes a lock with lr and sc, and counts what all share. Interrupts come meanwhile: the timer's, and one
# from its neighbour.

        .include "guest.inc"

        .equ    STEP, 0x9e3779b97f4a7c15
        .equ    FACTOR, 0x100000001b3

        control 1, 0x80100000, 0x10000, 100000, 0, 0, 0, 0
        begin
        la      t0, trap
        csrw    mtvec, t0

        ld      s2, P_START(s1)
        ld      s3, P_BYTES(s1)
        mul     t0, s3, s0
        add     s2, s2, t0
        add     s3, s3, s2
        li      s6, STEP
        li      s7, FACTOR
        mv      a0, s2
        li      a1, 0
1:      sd      a1, 0(a0)
        add     a1, a1, s6
        addi    a0, a0, 8
        bltu    a0, s3, 1b
        fence   rw, rw

        li      t0, 2
        sd      t0, STATE(s11)
        li      t0, 0x88                # timer and software
        csrw    mie, t0
        csrsi   mstatus, 8
        li      s4, 0                   # n
        li      s5, 0                   # 1 + … + n

pass:   addi    s4, s4, 1
        mv      a0, s2
        mv      a1, s5
        li      a2, 0
1:      ld      a3, 0(a0)
        bne     a3, a1, wrong
        add     a3, a3, s4
        sd      a3, 0(a0)
        mul     a2, a2, s7
        add     a2, a2, a3
        add     a1, a1, s6
        addi    a0, a0, 8
        bltu    a0, s3, 1b
        add     s5, s5, s4
        sd      a2, CHECKSUM(s11)
        sd      s4, COUNTER(s11)

        addi    a0, s1, LOCK
        li      t0, 1
1:      lr.w.aq t1, (a0)
        bnez    t1, 1b
        sc.w.aq t1, t0, (a0)
        bnez    t1, 1b
        ld      t1, SHARED(s1)
        addi    t1, t1, 1
        sd      t1, SHARED(s1)
        amoswap.w.rl zero, zero, (a0)
        addi    a0, s1, ATOMIC
        amoadd.d zero, t0, (a0)

        check_time
        j       pass

wrong:  csrci   mstatus, 8
        mv      a1, a0
        li      a0, MEMORY_WRONG
        j       fail

        .balign 4
trap:   csrr    t3, mcause
        bgez    t3, exception
        andi    t3, t3, 0xff
        li      t4, 7
        bne     t3, t4, neighbour
        ld      t3, 0(s10)
        ld      t4, 0(s9)
        bltu    t4, t3, early
        add     t3, t3, s8
        bgeu    t3, t4, 1f
        mv      t3, t4                  # late: do not catch up
1:      sd      t3, 0(s10)
        ld      t3, TICKS(s11)
        addi    t3, t3, 1
        sd      t3, TICKS(s11)
        addi    t3, s0, 1               # the next hart, round
        ld      t4, PRESENT(s1)
        bltu    t3, t4, 1f
        li      t3, 0
1:      slli    t3, t3, 2
        li      t4, CLINT_MSIP
        add     t4, t4, t3
        li      t3, 1
        sw      t3, 0(t4)
        mret
neighbour:
        slli    t3, s0, 2
        li      t4, CLINT_MSIP
        add     t4, t4, t3
        sw      zero, 0(t4)
        ld      t3, IPIS(s11)
        addi    t3, t3, 1
        sd      t3, IPIS(s11)
        mret
early:  li      a0, EARLY_TICK
        mv      a1, t4
        j       fail
exception:
        li      a0, EXCEPTION
        csrr    a1, mepc
        j       fail
        failure
