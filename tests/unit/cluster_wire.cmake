lingua_test(test_cluster_wire tests/unit/test_cluster_wire.c tests/support/cluster_kinds.c LIBS lingua_wire)
target_include_directories(test_cluster_wire PRIVATE tests)
